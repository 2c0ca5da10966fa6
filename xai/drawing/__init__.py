"""Pictures and pages of the heatmaps."""
