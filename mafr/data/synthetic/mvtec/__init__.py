"""The generated stand-in for MVTec 3D-AD: `write` makes raw folders by the recipes in the other files."""
