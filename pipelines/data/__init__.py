"""From files to batches: sources, preparation, decoding, augmentation, the assembled stream."""
