/* Where does every OpenMP thread run?
 *
 *     gcc -fopenmp -O2 -o where examples/openmp/where.c
 *     ompbind run -n 2 -- ./where
 *
 * prints a line for each thread of each rank:
 *
 *     rank 0 pid 4711 thread 0 tid 4711 place 0 cpu 0 node 0 mask 0
 *
 *   place  the OpenMP place it is bound to, -1: to none
 *   cpu    where it was when it looked, and the memory node of that cpu
 *   mask   the cpus where the kernel lets it run, as the thread itself sees them
 *
 * --wait         then waits for the end of standard input, so that someone else can look at the
 *                threads meanwhile: they all stay until then
 * --touch MIB    first writes to that much memory and prints, before the threads, where it lies:
 *                "rank 0 pid 4711 touched 64MiB at 7f0012345000"
 *
 * Nothing in here binds anything: all of it comes from how the program was started.
 */
#define _GNU_SOURCE
#include <omp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MAX_CPUS = 8192, LINE = 4096 };

/* Writes a mask as the kernel does: 0-3,8. */
static void write_mask(char *text, size_t size, const cpu_set_t *mask, size_t mask_size) {
    size_t used = 0;
    text[0] = '\0';
    for (int cpu = 0; cpu < MAX_CPUS && used < size; cpu++) {
        if (!CPU_ISSET_S(cpu, mask_size, mask)) continue;
        int last = cpu;
        while (last + 1 < MAX_CPUS && CPU_ISSET_S(last + 1, mask_size, mask)) last++;
        used += snprintf(text + used, size - used, last > cpu ? "%s%d-%d" : "%s%d",
                         used ? "," : "", cpu, last);
        cpu = last;
    }
}

/* What the calling thread sees of itself. */
static void describe(char *line, const char *rank) {
    unsigned cpu = 0, node = 0;
    char text[LINE / 2] = "?";
    size_t mask_size = CPU_ALLOC_SIZE(MAX_CPUS);
    cpu_set_t *mask = CPU_ALLOC(MAX_CPUS);
    if (mask) {
        CPU_ZERO_S(mask_size, mask);
        if (sched_getaffinity(0, mask_size, mask) == 0) write_mask(text, sizeof text, mask, mask_size);
        CPU_FREE(mask);
    }
    syscall(SYS_getcpu, &cpu, &node, NULL);
    snprintf(line, LINE, "rank %s pid %d thread %d tid %ld place %d cpu %u node %u mask %s\n", rank,
             (int)getpid(), omp_get_thread_num(), (long)syscall(SYS_gettid), omp_get_place_num(),
             cpu, node, text);
}

static int touch(long mib, const char *rank) {
    size_t size = (size_t)mib << 20;
    char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return -1;
    memset(memory, 1, size);
    printf("rank %s pid %d touched %ldMiB at %lx\n", rank, (int)getpid(), mib,
           (unsigned long)memory);
    return 0;
}

int main(int argc, char **argv) {
    const char *rank = getenv("OMPBIND_RANK");
    long mib = 0;
    int wait = 0;
    if (!rank) rank = "-";
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--wait")) {
            wait = 1;
        } else if (!strcmp(argv[i], "--touch") && i + 1 < argc && (mib = atol(argv[i + 1])) > 0) {
            i++;
        } else {
            fprintf(stderr, "usage: %s [--wait] [--touch MIB]\n", argv[0]);
            return 2;
        }
    }
    setvbuf(stdout, NULL, _IOFBF, 1 << 16); /* so that a rank's lines stay together */
    if (mib && touch(mib, rank) != 0) {
        perror("mmap");
        return 1;
    }

    int count = 0;
    char(*lines)[LINE] = NULL;
#pragma omp parallel
    {
#pragma omp single
        {
            count = omp_get_num_threads();
            lines = calloc((size_t)count, sizeof *lines);
        }
        if (lines) describe(lines[omp_get_thread_num()], rank);
    }
    if (!lines) {
        perror("calloc");
        return 1;
    }
    for (int i = 0; i < count; i++) fputs(lines[i], stdout);
    free(lines);
    if (wait) puts("ready");
    fflush(stdout);
    if (wait)
        while (getchar() != EOF) continue;
    return 0;
}
