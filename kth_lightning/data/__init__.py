"""From a folder or an archive of images to batches on the device."""
