"""The generated stand-in for MVTec 3D-AD: `write` makes raw folders of what `recipes` lists."""
