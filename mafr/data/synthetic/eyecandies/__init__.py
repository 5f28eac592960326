"""The generated stand-in for Eyecandies: `write` makes raw folders of what `candies` builds."""
