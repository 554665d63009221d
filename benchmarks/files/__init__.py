"""Opening, examining, reading and writing whole files: aiod's clients beside os, thread pools and aiofiles."""
