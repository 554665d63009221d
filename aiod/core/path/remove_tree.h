/*
 * remove_tree.h - removes a directory with everything in it, a part at a time. Blocks: for workers. Thread-safe, without
 * locks.
 *
 * Every directory is opened relative to the descriptor of its parent, without following a symbolic link, and every name
 * is removed relative to the descriptor of its directory. So nothing outside the tree is removed, even if another
 * process replaces a directory by a link, or moves it, meanwhile. A mount point in the tree is emptied, but cannot be
 * removed (EBUSY).
 */
#ifndef AIOD_REMOVE_TREE_H
#define AIOD_REMOVE_TREE_H

#include <stdint.h>

/* As many names one call removes: some milliseconds, so that it holds up nothing that waits for the thread. */
#define AIOD_REMOVE_TREE_NAMES_MAX 512u

/*
 * Remove the directory `name` of `directory_fd`, or up to `names_max` names in it. Nothing is kept between calls. 0: it
 * is removed; 1: there is more; or the -errno of the first failure: ENOTDIR if `name` is not a directory, also if it is
 * a symbolic link; EINVAL for "." and "..". What was removed before a failure stays removed.
 */
int aiod_remove_tree(int directory_fd, const char *name, uint32_t names_max);

#endif
