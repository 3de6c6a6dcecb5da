/* How the threads of OpenMP wait for each other. GNU's runtime lets them spin for milliseconds at
 * every barrier unless its environment says otherwise, and reads that before main. Beside other
 * work a thread that spins uses up the time that the one it waits for needs: a run takes a hundred
 * times as long. One that spins briefly and then sleeps costs next to nothing anywhere.
 *
 * Every program that links the library prepares itself before libgomp (which is linked in, so that
 * it starts after this) looks: GOMP_SPINCOUNT is set to as many turns as take PDT_SPIN_MICROSECONDS
 * here, unless the user has set that or OMP_WAIT_POLICY. */
#ifndef PDT_BASE_WAITING_H
#define PDT_BASE_WAITING_H

#include "base/types.h"

enum { PDT_SPIN_MICROSECONDS = 30 };

/* Turns of libgomp's waiting loop that take so long on this processor. Takes some microseconds to
 * find out. */
int64_t pdt_spin_count(double microseconds);

/* Sets what was said above in the environment. Called before main; again, it changes nothing. */
void pdt_prepare_waiting(void);

#endif
