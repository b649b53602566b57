/* What one barrier of all threads costs, as in EPCC's synchronisation benchmarks: the time of loops
 * of a short piece of work with a barrier after each piece, less that of the work alone.
 * Takes how many barriers; prints microseconds for each, then with its piece of work: never zero,
 * which the difference may be where one thread waits for none. */
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>

static void work(int amount) {
    for (volatile int i = 0; i < amount; i++) {
    }
}

int main(int argc, char **argv) {
    int rounds = argc > 1 ? atoi(argv[1]) : 10000, amount = 100;
    double alone = omp_get_wtime();
    for (int round = 0; round < rounds; round++) work(amount);
    alone = omp_get_wtime() - alone;
#pragma omp parallel
    work(amount); /* starts the threads */
    double together = omp_get_wtime();
#pragma omp parallel
    for (int round = 0; round < rounds; round++) {
        work(amount);
#pragma omp barrier
    }
    together = omp_get_wtime() - together;
    double each = together > alone ? 1e6 * (together - alone) / rounds : 0;
    printf("%.3f us for each barrier, %.3f with its work\n", each, 1e6 * together / rounds);
    return 0;
}
