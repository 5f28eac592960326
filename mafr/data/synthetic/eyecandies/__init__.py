"""The generated stand-in for Eyecandies: `write` makes raw folders of the candies in `discs`, `lumps`, `ropes`."""
