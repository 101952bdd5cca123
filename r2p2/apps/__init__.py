"""Applications that come with the package: ``echo`` and ``kv``."""
