"""Which candidate and which fold next, and why: pure decisions over what is finished. Knows neither
images, nor Ray, nor files but the journal.
"""
