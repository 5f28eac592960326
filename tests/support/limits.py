"""How long tests wait for something that comes at once on an idle machine: long, for a wait that ends costs nothing."""

GENEROUS = 300  # seconds
