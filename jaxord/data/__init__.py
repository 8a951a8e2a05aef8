"""Sources become Records, Records become batches of uint8 images; the jitted step augments them."""
