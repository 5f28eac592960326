"""The settings by section. Read `field` first: in its words a setting says whom it concerns and what it decides."""
