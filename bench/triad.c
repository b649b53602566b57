/* The sum of two arrays, one of them scaled, as STREAM's triad: how fast memory is read and written.
 * Takes the size of each of three arrays in KiB and how many times; prints GB/s over all of them.
 * Each thread touches its part of the arrays first, which puts it on that thread's memory node. */
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    long size = (argc > 1 ? atol(argv[1]) : 32768) * 1024 / sizeof(double);
    int rounds = argc > 2 ? atoi(argv[2]) : 10;
    double *a = malloc(size * sizeof *a), *b = malloc(size * sizeof *b), *c = malloc(size * sizeof *c);
    if (!a || !b || !c) return 1;
#pragma omp parallel for schedule(static)
    for (long i = 0; i < size; i++) a[i] = 0, b[i] = i, c[i] = 2;
    double begin = omp_get_wtime();
    for (int round = 0; round < rounds; round++) {
#pragma omp parallel for schedule(static)
        for (long i = 0; i < size; i++) a[i] = b[i] + 0.5 * c[i];
    }
    double seconds = omp_get_wtime() - begin;
    printf("%.3f GB/s, check %g\n", 3e-9 * sizeof(double) * size * rounds / seconds, a[size - 1]);
    return 0;
}
