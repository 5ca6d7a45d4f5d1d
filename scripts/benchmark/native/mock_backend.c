// A stand-in for an LLM engine, fast enough not to be the limit: one thread, epoll, a heap of timers, loopback only.
//   mock_backend PORT SECONDS      (it ends by itself after SECONDS)
//
//   POST .../completions           JSON, or an event stream when the body says "stream":true
//   GET /_mock/config?first_token_us=&gap_us=&tokens=&body_us=     how soon, and how much
//   POST /                         `{}`: what DynamoDB says to a read that finds nothing and to a write
//   anything else                  a model list, an empty queue in /metrics, or {"status":"ok"}
//
// Every streamed token carries "t=<CLOCK_MONOTONIC ns>", so that a load generator on the same machine can tell exactly
// how long it was under way.
#include "common.h"

#define MAX_EVENTS 512
#define OBJECT(kind) \
    "{\"id\":\"chatcmpl-mock\",\"object\":\"" kind "\",\"created\":1700000000,\"model\":\"%s\",\"choices\":[%s]%s}"
#define COMPLETION OBJECT("chat.completion")
#define CHUNK "data: " OBJECT("chat.completion.chunk") "\n\n"
#define MODELS "{\"object\":\"list\",\"data\":[{\"id\":\"mock\",\"object\":\"model\"}]}"
#define PIECE "{\"index\":0,\"delta\":%s,\"logprobs\":null,\"finish_reason\":%s}"
#define USAGE ",\"usage\":{\"prompt_tokens\":24,\"completion_tokens\":%ld,\"total_tokens\":%ld}"

static struct {
    long first_token_us, gap_us, tokens, body_us;
} config = {0, 0, 16, 0};

typedef struct conn {
    int fd;
    bool dead, waiting, writing, stream, usage, close_after;
    buffer in, out;
    size_t sent, request_length;
    long token, tokens, gap_us;
    char model[96];
    int slot; // in the heap, -1 when no timer runs
    uint64_t due;
    struct conn *next_dead;
} conn;

static int ep;
static conn *graveyard; // freed after a round of events, since later events of the round may still name them

// -- timers ---------------------------------------------------------------------------------------------------------

static struct {
    conn **at;
    int length, capacity;
} heap;

static void heap_set(int slot, conn *c) {
    heap.at[slot] = c;
    c->slot = slot;
}

static void heap_swap(int a, int b) {
    conn *c = heap.at[a];
    heap_set(a, heap.at[b]);
    heap_set(b, c);
}

static void heap_up(int i) {
    for (; i && heap.at[(i - 1) / 2]->due > heap.at[i]->due; i = (i - 1) / 2) heap_swap(i, (i - 1) / 2);
}

static void heap_down(int i) {
    for (;;) {
        int least = i;
        for (int child = 2 * i + 1; child <= 2 * i + 2; child++)
            if (child < heap.length && heap.at[child]->due < heap.at[least]->due) least = child;
        if (least == i) return;
        heap_swap(i, least);
        i = least;
    }
}

static void set_timer(conn *c, uint64_t due) {
    if (heap.length == heap.capacity) {
        heap.capacity = heap.capacity ? 2 * heap.capacity : 256;
        heap.at = must(realloc(heap.at, heap.capacity * sizeof *heap.at));
    }
    c->due = due;
    heap_set(heap.length++, c);
    heap_up(c->slot);
}

static void stop_timer(conn *c) {
    int slot = c->slot;
    if (slot < 0) return;
    heap_swap(slot, --heap.length);
    c->slot = -1;
    if (slot == heap.length) return;
    heap_down(slot);
    heap_up(slot);
}

// -- connections ----------------------------------------------------------------------------------------------------

static void end(conn *c) {
    stop_timer(c);
    close(c->fd);
    free(c->in.at);
    free(c->out.at);
    c->dead = true;
    c->next_dead = graveyard;
    graveyard = c;
}

static void watch(conn *c, bool writing) {
    if (c->writing == writing) return;
    c->writing = writing;
    struct epoll_event e = {EPOLLIN | (writing ? EPOLLOUT : 0), {.ptr = c}};
    epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &e);
}

static void flush(conn *c) {
    while (c->sent < c->out.length) {
        ssize_t n = send(c->fd, c->out.at + c->sent, c->out.length - c->sent, 0);
        if (n < 0 && errno == EAGAIN) return watch(c, true);
        if (n < 0) return end(c);
        c->sent += n;
    }
    c->out.length = c->sent = 0;
    watch(c, false);
}

static void serve_next(conn *c);

static void finish(conn *c) {
    drop_front(&c->in, c->request_length);
    c->waiting = false;
    flush(c);
    if (c->dead) return;
    if (c->close_after) return end(c);
    if (c->in.length) serve_next(c);
}

// -- replies --------------------------------------------------------------------------------------------------------

static void reply(conn *c, const char *type, const char *body) {
    char head[256];
    int n = sprintf(head, "HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %zu\r\n%s\r\n", type, strlen(body),
                    c->close_after ? "Connection: close\r\n" : "");
    append(&c->out, head, n);
    append(&c->out, body, strlen(body));
    finish(c);
}

static void put_chunk(conn *c, const char *bytes) {
    char size[24];
    append(&c->out, size, sprintf(size, "%zx\r\n", strlen(bytes)));
    append(&c->out, bytes, strlen(bytes));
    append(&c->out, "\r\n", 2);
}

static void put_piece(conn *c, const char *delta, const char *finish_reason) {
    char piece[256], event[640];
    sprintf(piece, PIECE, delta, finish_reason);
    sprintf(event, CHUNK, c->model, piece, "");
    put_chunk(c, event);
}

static void put_token(conn *c) {
    char delta[64];
    sprintf(delta, "{\"content\":\" t=%llu\"}", (unsigned long long)now_ns());
    put_piece(c, delta, "null");
    c->token++;
}

static void begin_stream(conn *c) {
    static const char head[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
                               "Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n";
    append(&c->out, head, sizeof head - 1);
    put_piece(c, "{\"role\":\"assistant\",\"content\":\"\"}", "null");
}

static void end_stream(conn *c) {
    put_piece(c, "{}", "\"stop\"");
    if (c->usage) {
        char usage[128], event[640];
        sprintf(usage, USAGE, c->tokens, 24 + c->tokens);
        sprintf(event, CHUNK, c->model, "", usage);
        put_chunk(c, event);
    }
    put_chunk(c, "data: [DONE]\n\n");
    append(&c->out, "0\r\n\r\n", 5);
    finish(c);
}

static void reply_whole(conn *c) {
    char usage[128], body[1024];
    sprintf(usage, USAGE, config.tokens, 24 + config.tokens);
    sprintf(body, COMPLETION, c->model,
            "{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"Hello! This is a canned answer from the mock "
            "backend, long enough to look like a short reply.\"},\"logprobs\":null,\"finish_reason\":\"stop\"}",
            usage);
    reply(c, "application/json", body);
}

// The time of a completion has come: its whole body, its first token or its next one.
static void proceed(conn *c) {
    if (!c->stream) return reply_whole(c);
    if (!c->token) begin_stream(c);
    do put_token(c);
    while (!c->gap_us && c->token < c->tokens);
    if (c->token >= c->tokens) return end_stream(c);
    flush(c);
    if (c->dead) return;
    uint64_t next = c->due + c->gap_us * 1000ull, now = now_ns();
    set_timer(c, next < now ? now : next);
}

// -- requests -------------------------------------------------------------------------------------------------------

// Where the value of a JSON key begins; NULL when it is not there.
static const char *value_of(const char *body, size_t length, const char *key) {
    const char *end = body + length, *p = memmem(body, length, key, strlen(key));
    if (!p) return NULL;
    for (p += strlen(key); p < end && (*p == ' ' || *p == ':');) p++;
    return p < end ? p : NULL;
}

static bool is_true(const char *body, size_t length, const char *key) {
    const char *value = value_of(body, length, key);
    return value && *value == 't';
}

static void complete(conn *c, const char *body, size_t length) {
    const char *model = value_of(body, length, "\"model\"");
    size_t n = 0;
    if (model && *model++ == '"')
        while (model + n < body + length && model[n] != '"' && n < sizeof c->model - 1) n++;
    memcpy(c->model, n ? model : "mock", n ? n : 5);
    if (n) c->model[n] = 0;
    c->stream = is_true(body, length, "\"stream\"");
    c->usage = is_true(body, length, "\"include_usage\"");
    c->token = 0;
    c->tokens = config.tokens;
    c->gap_us = config.gap_us;
    c->waiting = true;
    c->due = now_ns() + (c->stream ? config.first_token_us : config.body_us) * 1000ull;
    if (c->due > now_ns()) set_timer(c, c->due);
    else proceed(c);
}

static void configure(const char *query) {
    const char *names[] = {"first_token_us=", "gap_us=", "tokens=", "body_us="};
    long *values[] = {&config.first_token_us, &config.gap_us, &config.tokens, &config.body_us};
    for (int i = 0; i < 4; i++) {
        const char *p = strstr(query, names[i]);
        if (p) *values[i] = atol(p + strlen(names[i]));
    }
    if (config.tokens < 1) config.tokens = 1;
}

static void handle(conn *c, const char *head, const char *body, size_t length) {
    char method[8] = "", path[512] = "";
    sscanf(head, "%7s %511s", method, path);
    if (!strcmp(method, "POST") && strstr(path, "completions")) return complete(c, body, length);
    if (!strcmp(method, "POST") && !strcmp(path, "/")) return reply(c, "application/x-amz-json-1.0", "{}");
    if (!strncmp(path, "/_mock/config", 13)) configure(path);
    if (strstr(path, "/metrics")) return reply(c, "text/plain", "vllm:num_requests_waiting 0\n");
    if (strstr(path, "/models")) return reply(c, "application/json", MODELS);
    reply(c, "application/json", "{\"status\":\"ok\"}");
}

static void serve_next(conn *c) {
    if (c->waiting) return;
    char *blank = memmem(c->in.at, c->in.length, "\r\n\r\n", 4);
    if (!blank) return;
    size_t head = blank - c->in.at + 4, length = 0;
    c->close_after = false;
    for (char *p = c->in.at; p < blank; p = memchr(p, '\n', blank + 2 - p) + 1) {
        if (!strncasecmp(p, "content-length:", 15)) length = atol(p + 15);
        if (!strncasecmp(p, "connection: close", 17)) c->close_after = true;
    }
    if (c->in.length < head + length) return;
    c->request_length = head + length;
    blank[2] = 0;
    handle(c, c->in.at, c->in.at + head, length);
}

static void receive(conn *c) {
    for (;;) {
        reserve(&c->in, 8192);
        size_t room = c->in.capacity - c->in.length;
        ssize_t n = recv(c->fd, c->in.at + c->in.length, room, 0);
        if (n < 0 && errno == EAGAIN) break;
        if (n <= 0) return end(c);
        c->in.length += n;
        if ((size_t)n < room) break;
    }
    serve_next(c);
}

static void accept_all(int listener) {
    int fd, one = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        conn *c = must(calloc(1, sizeof *c));
        c->fd = fd;
        c->slot = -1;
        struct epoll_event e = {EPOLLIN, {.ptr = c}};
        epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
    }
}

static void on_event(struct epoll_event *e, int listener) {
    conn *c = e->data.ptr;
    if (!c) return accept_all(listener);
    if (!c->dead && e->events & EPOLLOUT) flush(c);
    if (!c->dead && e->events & ~EPOLLOUT) receive(c);
}

static void bury_the_dead(void) {
    while (graveyard) {
        conn *c = graveyard;
        graveyard = c->next_dead;
        free(c);
    }
}

static int listen_on(int port) {
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in address = loopback(port);
    if (bind(listener, (void *)&address, sizeof address) || listen(listener, 4096)) {
        perror("mock_backend: cannot listen");
        exit(1);
    }
    return listener;
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    prepare_process();
    int listener = listen_on(atoi(argv[1]));
    uint64_t over = now_ns() + atoi(argv[2]) * SECOND;
    ep = epoll_create1(0);
    struct epoll_event first = {EPOLLIN, {.ptr = NULL}}, events[MAX_EVENTS];
    epoll_ctl(ep, EPOLL_CTL_ADD, listener, &first);
    for (uint64_t now; (now = now_ns()) < over;) {
        uint64_t next = heap.length && heap.at[0]->due < over ? heap.at[0]->due : over;
        int n = wait_for_events(ep, events, MAX_EVENTS, next > now ? next - now : 0);
        for (int i = 0; i < n; i++) on_event(&events[i], listener);
        for (now = now_ns(); heap.length && heap.at[0]->due <= now;) {
            conn *c = heap.at[0];
            stop_timer(c);
            proceed(c);
        }
        bury_the_dead();
    }
}
