"""Processes and what they wait for: Ray's connection, signals, heartbeats, private folders. No
pixels.
"""
