/* export_stats.c - the list of exports with their counts. */
#include "session/export_stats.h"

#include <stdlib.h>

/* Exports are few, and searched for when a file is opened: a list will do. */
struct aiod_export_stats *aiod_export_stats_get(struct aiod_export_stats **list, struct aiod_rate *rate)
{
    struct aiod_export_stats *entry = *list;

    if (rate == NULL) {
        return NULL;
    }
    while (entry != NULL && entry->rate != rate) {
        entry = entry->next;
    }
    if (entry == NULL) {
        entry = calloc(1, sizeof(*entry));
        if (entry == NULL) {
            return NULL;
        }
        aiod_rate_ref(rate);
        entry->rate = rate;
        entry->next = *list;
        *list = entry;
    }
    return entry;
}

void aiod_export_stats_begin(struct aiod_export_stats *list)
{
    for (struct aiod_export_stats *entry = list; entry != NULL; entry = entry->next) {
        aiod_stats_add(&entry->shown, &entry->stats);
    }
}

void aiod_export_stats_end(struct aiod_export_stats *list)
{
    for (struct aiod_export_stats *entry = list; entry != NULL; entry = entry->next) {
        aiod_stats_destroy(&entry->shown);
    }
}

void aiod_export_stats_destroy(struct aiod_export_stats *list)
{
    while (list != NULL) {
        struct aiod_export_stats *next = list->next;

        aiod_stats_destroy(&list->stats);
        aiod_rate_unref(list->rate);
        free(list);
        list = next;
    }
}
