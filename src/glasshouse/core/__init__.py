"""What every room stands on: settings, errors, storage, seeds, progress, devices."""
