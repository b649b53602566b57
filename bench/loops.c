/* Many short OpenMP loops over memory that fits a cache: what placing threads is for.
 * Takes how many and prints the seconds they took. */
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>

enum { SIZE = 1 << 16 };
static double a[SIZE], b[SIZE];

int main(int argc, char **argv) {
    int rounds = argc > 1 ? atoi(argv[1]) : 1000;
    for (int i = 0; i < SIZE; i++) b[i] = i;
    double begin = 0;
    for (int round = -rounds / 10; round < rounds; round++) {
        if (round == 0) begin = omp_get_wtime();
#pragma omp parallel for schedule(static)
        for (int i = 0; i < SIZE; i++) a[i] = 0.5 * a[i] + b[i];
    }
    printf("%.6f %g\n", omp_get_wtime() - begin, a[SIZE - 1]);
    return 0;
}
