"""vhost-user-blk without a guest: a virtio-blk driver in user space (C), and aiod's server beside QEMU's."""
