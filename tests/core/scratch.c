/* scratch.c - temporary files and loop devices. */
#include "scratch.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/loop.h>
#include <string.h>
#include <sys/ioctl.h>

#include "check.h"
#include "ops/worker_io.h"

int scratch_file(int flags)
{
    char name[] = "/var/tmp/aiod-core-test-XXXXXX";
    int fd = mkostemp(name, O_CLOEXEC | flags);

    CHECK(fd >= 0);
    CHECK(unlink(name) == 0);
    return fd;
}

int open_again(int fd, int flags)
{
    char name[32];
    int again;

    snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
    again = open(name, O_RDWR | O_CLOEXEC | flags);
    CHECK(again >= 0);
    return again;
}

static int remove_name(const char *name, const struct stat *status, int type, struct FTW *where)
{
    (void)status, (void)type, (void)where;
    return remove(name);
}

void scratch_remove_tree(const char *path)
{
    CHECK(nftw(path, remove_name, 16, FTW_DEPTH | FTW_PHYS) == 0);
}

/* Another process may take the free number first. */
static int configure(int control, const struct loop_config *config, char *name, size_t size)
{
    for (;;) {
        int number = ioctl(control, LOOP_CTL_GET_FREE);
        int device, error;

        if (number < 0) {
            return -errno;
        }
        snprintf(name, size, "/dev/loop%d", number);
        device = open(name, O_RDWR | O_CLOEXEC);
        if (device < 0 || ioctl(device, LOOP_CONFIGURE, config) == 0) {
            return device < 0 ? -errno : device;
        }
        error = errno;
        close(device);
        if (error != EBUSY) {
            return -error;
        }
    }
}

int scratch_device(uint64_t bytes, int flags)
{
    int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    int backing = scratch_file(0);
    struct loop_config config = {.fd = (unsigned)backing, .block_size = 4096};
    char name[32];
    int configured, device;

    CHECK(ftruncate(backing, (off_t)bytes) == 0);
    config.info.lo_flags = LO_FLAGS_AUTOCLEAR;
    configured = control < 0 ? -errno : configure(control, &config, name, sizeof(name));
    if (control >= 0) {
        close(control);
    }
    close(backing);
    if (configured < 0) {
        return configured;
    }
    device = open(name, O_RDWR | O_CLOEXEC | flags);
    CHECK(device >= 0);
    close(configured);
    return device;
}

char pattern(uint64_t index)
{
    return (char)(1 + (index * 2654435761u >> 13) % 255);
}

void check_bytes(int fd, const char *wanted, uint64_t length, uint64_t offset)
{
    char *data = malloc(length);
    int buffered = open_again(fd, 0);

    CHECK(data != NULL);
    CHECK(aiod_io_read(buffered, data, length, offset, 0) == (int64_t)length);
    if (memcmp(data, wanted, length) != 0) {
        uint64_t i = 0;

        while (data[i] == wanted[i]) {
            i++;
        }
        fprintf(stderr, "byte %llu is %d, not %d\n", (unsigned long long)(offset + i), data[i], wanted[i]);
        abort();
    }
    close(buffered);
    free(data);
}

void check_size(int fd, int64_t bytes)
{
    CHECK(aiod_io_size(fd) == bytes);
}
