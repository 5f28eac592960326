"""Pictures: the figures of the reproduction, and what notebooks show. `figure2` is the paper's qualitative figure."""
