"""The settings by section. Read `field` first: it explains the words in which a setting describes itself."""
