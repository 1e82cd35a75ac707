"""What a network costs on a device, layer by layer, dense and pruned. Knows nothing of searching."""
