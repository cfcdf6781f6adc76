"""The page that a browser shows at `/`: what a model says of an image, and where it looked."""
