"""Explanations of finished cells. Modules are imported where they are needed; this door is light."""
