"""One cell: pixels in, metrics and predictions out. Modules are imported where they are needed; this door is light."""
