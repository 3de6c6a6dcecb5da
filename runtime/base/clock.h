/* Time and threads. */
#ifndef PDT_BASE_CLOCK_H
#define PDT_BASE_CLOCK_H

/* Seconds of a clock that only goes forward. */
double pdt_seconds(void);

/* Index of the calling thread in its OpenMP team, 0 outside one. */
int pdt_thread(void);

#endif
