"""The site: notebooks as linked pages, and the heatmap explorer in any browser."""
