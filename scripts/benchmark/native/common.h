// What the mock backend and the load generator share.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000ull

typedef struct {
    char *at;
    size_t length, capacity;
} buffer;

static inline uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * SECOND + t.tv_nsec;
}

static inline void *must(void *memory) {
    if (!memory) {
        fprintf(stderr, "out of memory\n");
        exit(1);
    }
    return memory;
}

static inline void reserve(buffer *b, size_t more) {
    if (b->length + more <= b->capacity) return;
    b->capacity = 2 * (b->length + more) + 1024;
    b->at = must(realloc(b->at, b->capacity));
}

static inline void append(buffer *b, const void *bytes, size_t n) {
    reserve(b, n);
    memcpy(b->at + b->length, bytes, n);
    b->length += n;
}

static inline void drop_front(buffer *b, size_t n) {
    memmove(b->at, b->at + n, b->length - n);
    b->length -= n;
}

static inline struct sockaddr_in loopback(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

// As epoll_wait, with a timeout in nanoseconds; older C libraries have no name for this call.
static inline int wait_for_events(int ep, struct epoll_event *events, int n, uint64_t ns) {
    struct timespec t = {ns / SECOND, ns % SECOND};
    return syscall(SYS_epoll_pwait2, ep, events, n, &t, NULL, 0);
}

// Exact timers, no signal for a peer that left, and an end together with the program that started us.
static inline void prepare_process(void) {
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_TIMERSLACK, 1UL);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
}
