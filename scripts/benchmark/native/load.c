// A load generator that understands event streams: one thread, epoll, loopback only; it always ends by itself.
//
//   load --port N --path P --connections N --seconds S [--warmup S] [--rate R] [--requests N] [--stream] [--model M]
//        [--header 'Name: value']... [--unique] [--vary-client]
//
// Closed loop: each connection sends its next request when the last one is answered. With --rate R an open loop: R
// requests a second, evenly, and latency counts from when a request was due, so that waiting is not hidden.
// --requests N ends after N answers; --unique gives every request a prompt of its own; --vary-client gives every
// request another public address in X-Forwarded-For.
// Prints one JSON object; times are microseconds. Token delay is arrival minus the "t=" that the mock backend wrote.
#include "common.h"

#define MAX_EVENTS 256
#define NUMBER_WIDTH 20
#define ADDRESS_WIDTH 15

typedef struct {
    const char *name;
    float *values;
    size_t length, capacity;
} series;

static series latency = {.name = "latency"};
static series first_token = {.name = "first_token"};
static series token_delay = {.name = "token_delay"};

typedef struct {
    int fd, status;
    bool busy, head_read, chunked, keep_alive, has_token, after_chunk;
    long left; // bytes of the body, or of the chunk, that have not come; -1: until the end of the connection
    size_t offset;
    uint64_t begun;
    buffer in, line;
} conn;

static struct {
    int port, connections;
    double seconds, warmup, rate;
    long requests;
    bool stream, unique, vary_client;
    const char *path, *model;
} option = {.port = 0, .connections = 1, .seconds = 1, .path = "/v1/chat/completions", .model = "mock"};

static int ep;
static bool measuring;
static buffer request, headers;
static size_t number_at, address_at; // where in the request its number and its client's address stand
static uint64_t answered, tokens, failed, statuses[600];

// -- what was measured ----------------------------------------------------------------------------------------------

static void record(series *s, uint64_t from, uint64_t to) {
    if (!measuring) return;
    if (s->length == s->capacity) {
        s->capacity = s->capacity ? 2 * s->capacity : 4096;
        s->values = must(realloc(s->values, s->capacity * sizeof *s->values));
    }
    s->values[s->length++] = (to - from) / 1e3;
}

static int compare(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static double percentile(const series *s, double share) {
    return s->length ? s->values[(size_t)((s->length - 1) * share)] : 0;
}

static void print_series(series *s) {
    qsort(s->values, s->length, sizeof *s->values, compare);
    printf(",\"%s\":{\"count\":%zu,\"p50\":%.1f,\"p99\":%.1f,\"max\":%.1f}", s->name, s->length, percentile(s, .5),
           percentile(s, .99), percentile(s, 1));
}

static void print_report(double seconds) {
    printf("{\"seconds\":%.3f,\"answered\":%llu,\"tokens\":%llu,\"failed\":%llu,\"statuses\":{", seconds,
           (unsigned long long)answered, (unsigned long long)tokens, (unsigned long long)failed);
    const char *comma = "";
    for (int i = 0; i < 600; i++)
        if (statuses[i]) {
            printf("%s\"%d\":%llu", comma, i, (unsigned long long)statuses[i]);
            comma = ",";
        }
    printf("}");
    print_series(&latency);
    print_series(&first_token);
    print_series(&token_delay);
    printf("}\n");
}

static void start_measuring(void) {
    measuring = true;
    answered = tokens = failed = 0;
    memset(statuses, 0, sizeof statuses);
}

// -- requests -------------------------------------------------------------------------------------------------------

static void add_header(buffer *to, const char *line) {
    append(to, line, strlen(line));
    append(to, "\r\n", 2);
}

static void build_request(void) {
    char body[512], head[512];
    int length = sprintf(body,
                         "{\"model\":\"%.100s\",\"stream\":%s,\"max_tokens\":64,\"temperature\":0,\"messages\":["
                         "{\"role\":\"system\",\"content\":\"You are a helpful assistant.\"},"
                         "{\"role\":\"user\",\"content\":\"Say hello to the router. %0*d\"}]}",
                         option.model, option.stream ? "true" : "false", NUMBER_WIDTH, 0);
    int n = sprintf(head, "POST %.200s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n", option.path, option.port);
    append(&request, head, n);
    add_header(&request, "Content-Type: application/json");
    add_header(&request, "Accept: */*");
    append(&request, headers.at, headers.length);
    if (option.vary_client) {
        address_at = request.length + strlen("X-Forwarded-For: ");
        add_header(&request, "X-Forwarded-For: 198.51.100.1   ");
    }
    append(&request, head, sprintf(head, "Content-Length: %d\r\n\r\n", length));
    number_at = request.length + (strstr(body, " 0000") + 1 - body);
    append(&request, body, length);
}

static uint64_t random_bits(void) { // SplitMix64, the same sequence in every run
    static uint64_t state = 20261123;
    uint64_t x = state += 0x9e3779b97f4a7c15ull;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ x >> 27) * 0x94d049bb133111ebull;
    return x ^ x >> 31;
}

static void put_padded(size_t at, size_t width, const char *text) {
    memset(request.at + at, ' ', width);
    memcpy(request.at + at, text, strlen(text));
}

static void vary_request(void) {
    char text[32];
    if (option.unique) { // nanoseconds since the machine started: also unlike those of earlier runs
        sprintf(text, "%0*llu", NUMBER_WIDTH, (unsigned long long)now_ns());
        put_padded(number_at, NUMBER_WIDTH, text);
    }
    if (option.vary_client) {
        uint64_t r = random_bits();
        int octets[] = {r % 106 + 20, r >> 16 & 255, r >> 24 & 255, r >> 32 & 255};
        sprintf(text, "%d.%d.%d.%d", octets[0], octets[1], octets[2], octets[3]);
        put_padded(address_at, ADDRESS_WIDTH, text);
    }
}

static void hang_up(conn *c) {
    if (c->fd >= 0) close(c->fd);
    c->fd = -1;
}

static bool dial(conn *c) {
    int one = 1;
    struct sockaddr_in address = loopback(option.port);
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(c->fd, (void *)&address, sizeof address)) {
        hang_up(c);
        return false;
    }
    struct epoll_event e = {EPOLLIN, {.ptr = c}};
    epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &e);
    return true;
}

static bool send_on(conn *c) {
    if (c->fd < 0 && !dial(c)) return false;
    return send(c->fd, request.at, request.length, 0) == (ssize_t)request.length;
}

static void begin(conn *c, uint64_t due) {
    vary_request();
    c->busy = true;
    c->head_read = c->has_token = c->after_chunk = false;
    c->in.length = c->line.length = c->offset = 0;
    c->left = 0;
    c->begun = due;
    if (send_on(c)) return;
    hang_up(c); // the server may have closed an idle connection: one more try on a new one
    if (send_on(c)) return;
    hang_up(c);
    failed++;
    c->busy = false;
}

// -- answers --------------------------------------------------------------------------------------------------------

static void read_line(conn *c, const char *line, size_t n, uint64_t now) {
    if (n < 5 || memcmp(line, "data:", 5)) return;
    const char *end = line + n, *p = memmem(line, n, "\"content\":", 10);
    if (!p) return;
    for (p += 10; p < end && *p == ' ';) p++;
    if (end - p < 2 || *p != '"' || p[1] == '"') return; // null, or the empty text beside the role
    tokens++;
    if (!c->has_token) record(&first_token, c->begun, now);
    c->has_token = true;
    const char *stamp = memmem(p, end - p, "t=", 2);
    uint64_t sent = stamp ? strtoull(stamp + 2, NULL, 10) : 0;
    if (sent && now > sent) record(&token_delay, sent, now);
}

static void read_body(conn *c, const char *bytes, size_t n, uint64_t now) {
    if (!option.stream) return;
    append(&c->line, bytes, n);
    char *start = c->line.at, *end = start + c->line.length, *stop;
    for (; (stop = memchr(start, '\n', end - start)); start = stop + 1) read_line(c, start, stop - start, now);
    drop_front(&c->line, start - c->line.at);
}

static bool read_head(conn *c) {
    char *blank = memmem(c->in.at, c->in.length, "\r\n\r\n", 4);
    if (!blank) return false;
    c->status = atoi(c->in.at + 9);
    c->chunked = false;
    c->keep_alive = true;
    c->left = -1;
    for (char *p = c->in.at; p < blank; p = memchr(p, '\n', blank + 2 - p) + 1) {
        if (!strncasecmp(p, "content-length:", 15)) c->left = atol(p + 15);
        if (!strncasecmp(p, "transfer-encoding: chunked", 26)) c->chunked = true;
        if (!strncasecmp(p, "connection: close", 17)) c->keep_alive = false;
    }
    if (c->chunked) c->left = 0;
    c->offset = blank + 4 - c->in.at;
    return c->head_read = true;
}

// Passes the next size line. 1: bytes of a chunk follow, 0: the last chunk was read, -1: more must come first.
static int open_chunk(conn *c) {
    char *p = c->in.at + c->offset, *end = c->in.at + c->in.length;
    if (c->after_chunk) p += 2;
    char *stop = p < end ? memchr(p, '\n', end - p) : NULL;
    if (!stop) return -1;
    long size = strtol(p, NULL, 16);
    if (!size) return end - stop < 3 ? -1 : 0;
    c->after_chunk = false;
    c->offset = stop + 1 - c->in.at;
    c->left = size;
    return 1;
}

static void take(conn *c, uint64_t now) {
    size_t n = c->in.length - c->offset;
    if (c->left >= 0 && n > (size_t)c->left) n = c->left;
    read_body(c, c->in.at + c->offset, n, now);
    c->offset += n;
    if (c->left > 0) c->left -= n;
}

static bool read_chunks(conn *c, uint64_t now) {
    for (;;) {
        if (!c->left) {
            int next = open_chunk(c);
            if (next <= 0) return !next;
        }
        take(c, now);
        if (c->left) return false;
        c->after_chunk = true;
    }
}

// True when the answer is complete.
static bool read_answer(conn *c, uint64_t now, bool closed) {
    if (!c->head_read && !read_head(c)) return false;
    bool complete;
    if (c->chunked) complete = read_chunks(c, now);
    else {
        take(c, now);
        complete = c->left < 0 ? closed : !c->left;
    }
    drop_front(&c->in, c->offset);
    c->offset = 0;
    return complete;
}

static void settle(conn *c, uint64_t now) {
    answered++;
    record(&latency, c->begun, now);
    statuses[c->status > 0 && c->status < 600 ? c->status : 0]++;
    c->busy = false;
    if (!c->keep_alive) hang_up(c);
}

static void on_readable(conn *c) {
    if (c->fd < 0) return;
    reserve(&c->in, 32768);
    ssize_t n = recv(c->fd, c->in.at + c->in.length, c->in.capacity - c->in.length, MSG_DONTWAIT);
    uint64_t now = now_ns();
    if (n < 0 && errno == EAGAIN) return;
    bool closed = n <= 0;
    if (!closed) c->in.length += n;
    if (c->busy && read_answer(c, now, closed)) settle(c, now);
    else if (c->busy && closed) {
        failed++;
        c->busy = false;
    }
    if (closed) hang_up(c);
}

// -- the loop -------------------------------------------------------------------------------------------------------

static void run(conn *conns) {
    struct epoll_event events[MAX_EVENTS];
    uint64_t started = now_ns(), measure_at = started + option.warmup * SECOND, next = started;
    uint64_t over = measure_at + option.seconds * SECOND, step = option.rate > 0 ? SECOND / option.rate : 0, now;
    while ((now = now_ns()) < over && !(option.requests && measuring && (long)answered >= option.requests)) {
        if (!measuring && now >= measure_at) start_measuring();
        for (int i = 0; i < option.connections && (!step || next <= now); i++) {
            if (conns[i].busy) continue;
            begin(&conns[i], step ? next : now);
            next += step;
        }
        bool backlog = step && next <= now;
        uint64_t wake = measuring ? over : measure_at;
        if (step && !backlog && next < wake) wake = next;
        now = now_ns();
        int n = wait_for_events(ep, events, MAX_EVENTS, wake > now ? wake - now : 0);
        for (int i = 0; i < n; i++) on_readable(events[i].data.ptr);
    }
    print_report(measuring ? (now_ns() - measure_at) / 1e9 : 0);
}

static int refuse(const char *what) {
    fprintf(stderr, "load: %s\n", what);
    return 2;
}

static bool flag(const char *name) {
    if (!strcmp(name, "--stream")) return option.stream = true;
    if (!strcmp(name, "--unique")) return option.unique = true;
    if (!strcmp(name, "--vary-client")) return option.vary_client = true;
    return false;
}

static bool valued(const char *name, const char *value) {
    if (!strcmp(name, "--port")) option.port = atoi(value);
    else if (!strcmp(name, "--path")) option.path = value;
    else if (!strcmp(name, "--model")) option.model = value;
    else if (!strcmp(name, "--connections")) option.connections = atoi(value);
    else if (!strcmp(name, "--requests")) option.requests = atol(value);
    else if (!strcmp(name, "--seconds")) option.seconds = atof(value);
    else if (!strcmp(name, "--warmup")) option.warmup = atof(value);
    else if (!strcmp(name, "--rate")) option.rate = atof(value);
    else if (!strcmp(name, "--header")) add_header(&headers, value);
    else return false;
    return true;
}

int main(int argc, char **argv) {
    prepare_process();
    for (int i = 1; i < argc; i++) {
        if (flag(argv[i])) continue;
        if (i + 1 == argc || !valued(argv[i], argv[i + 1])) return refuse(argv[i]);
        i++;
    }
    build_request();
    ep = epoll_create1(0);
    conn *conns = must(calloc(option.connections, sizeof *conns));
    for (int i = 0; i < option.connections; i++)
        if (!dial(&conns[i])) return refuse("cannot connect");
    run(conns);
}
