/*
 * boot.h - what the only program of a guest does before and after its work: it is /init, the modules of its disk are
 * beside it (/virtio.ko, ...), and its environment is what the kernel's command line says.
 */
#ifndef GUEST_BOOT_H
#define GUEST_BOOT_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define DISK "/dev/vda"

/* Print a line on the console. */
__attribute__((format(printf, 1, 2))) static inline void say(const char *format, ...)
{
    char line[512] = "guest: ";
    va_list arguments;
    size_t length = strlen(line);

    va_start(arguments, format);
    vsnprintf(line + length, sizeof(line) - length - 1, format, arguments);
    va_end(arguments);
    strcat(line, "\n");
    if (write(STDOUT_FILENO, line, strlen(line)) < 0) {
        _exit(1);
    }
}

static inline void end_machine(void)
{
    reboot(RB_AUTOBOOT); /* QEMU runs with -no-reboot */
    _exit(0);
}

static inline uint64_t number_from(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);

    return text == NULL ? otherwise : strtoull(text, NULL, 10);
}

static inline int is_module(const struct dirent *entry)
{
    size_t length = strlen(entry->d_name);

    return length > 3 && strcmp(entry->d_name + length - 3, ".ko") == 0;
}

static inline bool load_module(const char *name)
{
    char path[300];
    int fd;
    bool loaded;

    snprintf(path, sizeof(path), "/%s", name);
    fd = open(path, O_RDONLY);
    loaded = syscall(SYS_finit_module, fd, "", 0) == 0;
    close(fd);
    return loaded;
}

/* A module cannot be loaded before those that it needs: repeat until no more of them can. */
static inline void load_modules(void)
{
    struct dirent **names;
    int count = scandir("/", &names, is_module, alphasort);
    bool progress = true;

    while (progress) {
        progress = false;
        for (int i = 0; i < count; i++) {
            progress = load_module(names[i]->d_name) || progress;
        }
    }
}

/* Make the console and the disk ready. */
static inline void start_machine(void)
{
    mkdir("/dev", 0755);
    mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
    dup2(open("/dev/console", O_RDWR), STDOUT_FILENO);
    load_modules();
    while (access(DISK, F_OK) < 0) {
        usleep(10000);
    }
}

#endif
