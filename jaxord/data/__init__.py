"""Data: sources become Records, Records become batches of uint8 images, augmentation happens inside
the jitted step."""
