"""A guest of QEMU whose disk is served by aiod or by QEMU's own threads, and the vcpu that waits for it."""
