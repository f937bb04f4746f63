"""From a folder or an archive of pictures to batches on the device."""
