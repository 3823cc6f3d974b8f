// Ticks that start shortly before their wrap: KERB_TICKS_START_MS milliseconds after zero, by
// default five seconds before 2^30.

#include <stdlib.h>
#include <time.h>

#include "py/mpconfig.h"

#define DEFAULT_START_MS ((1UL << 30) - 5000UL)

static unsigned long start_ms;
static struct timespec origin;
static int started;

static void start(void) {
    if (started) {
        return;
    }
    const char *text = getenv("KERB_TICKS_START_MS");
    start_ms = text ? strtoul(text, NULL, 10) : DEFAULT_START_MS;
    clock_gettime(CLOCK_MONOTONIC, &origin);
    started = 1;
}

static unsigned long elapsed_us(void) {
    struct timespec now;
    start();
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (now.tv_sec - origin.tv_sec) * 1000000L + (now.tv_nsec - origin.tv_nsec) / 1000;
}

unsigned long kerb_ticks_ms(void) {
    unsigned long since_ms = elapsed_us() / 1000;
    return start_ms + since_ms;
}

unsigned long kerb_ticks_us(void) {
    unsigned long since_us = elapsed_us();
    return start_ms * 1000 + since_us;
}
