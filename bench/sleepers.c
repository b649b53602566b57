/* Starts as many processes as it is told, which sleep until it ends; writes how many there are. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    int wanted = argc > 1 ? atoi(argv[1]) : 0, made = 0;
    pid_t parent = getpid();
    while (made < wanted) {
        pid_t pid = fork();
        if (pid < 0)
            break; /* no more are allowed */
        if (pid == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            close(0);
            close(1);
            if (getppid() == parent)
                pause();
            _exit(0);
        }
        made++;
    }
    printf("%d\n", made);
    fflush(stdout);
    getchar(); /* until standard input is closed */
    return 0;
}
