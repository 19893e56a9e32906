/* A hit of UCX's registration cache: ucs_rcache_get and ucs_rcache_region_put of one page, in random order.
 *
 * ucx_rcache REGIONS THREADS ROUNDS prints one line a round: nanoseconds a hit, of the threads' own time. The registration costs
 * nothing, and no memory events are asked for, so this is the search and the counting alone. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <ucs/memory/rcache.h>

enum { PAGE = 4096, STRIDE = 2 * PAGE, LEAST_HITS = 200000 };

static ucs_rcache_t *cache;
static char *base;
static uint32_t *order;
static size_t regions, hits;
static pthread_barrier_t together;

static ucs_status_t reg(void *context, ucs_rcache_t *rcache, void *arg, ucs_rcache_region_t *region, uint16_t flags)
{
    (void)context, (void)rcache, (void)arg, (void)region, (void)flags;
    return UCS_OK;
}

static void dereg(void *context, ucs_rcache_t *rcache, ucs_rcache_region_t *region)
{
    (void)context, (void)rcache, (void)region;
}

static void dump(void *context, ucs_rcache_t *rcache, ucs_rcache_region_t *region, char *text, size_t len)
{
    (void)context, (void)rcache, (void)region;
    snprintf(text, len, "-");
}

static double own_time(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return now.tv_sec * 1e9 + now.tv_nsec;
}

static void hit(size_t region)
{
    ucs_rcache_region_t *found;
    if (ucs_rcache_get(cache, base + region * STRIDE, PAGE, PROT_READ, NULL, &found) != UCS_OK) {
        fprintf(stderr, "ucs_rcache_get failed\n");
        exit(1);
    }
    ucs_rcache_region_put(cache, found);
}

static void *run(void *spent)
{
    pthread_barrier_wait(&together);
    double since = own_time();
    for (size_t at = 0; at < hits; at++) {
        hit(order[at % regions]);
    }
    *(double *)spent = (own_time() - since) / hits;
    return NULL;
}

int main(int count, char **words)
{
    if (count != 4) {
        fprintf(stderr, "usage: ucx_rcache REGIONS THREADS ROUNDS\n");
        return 2;
    }
    regions = strtoul(words[1], NULL, 10);
    int threads = atoi(words[2]), rounds = atoi(words[3]);
    static const ucs_rcache_ops_t ops = {reg, dereg, dump};
    ucs_rcache_params_t params = {
        .region_struct_size = sizeof(ucs_rcache_region_t),
        .alignment = 16,
        .max_alignment = PAGE,
        .ops = &ops,
        .flags = UCS_RCACHE_FLAG_NO_PFN_CHECK,
        .max_regions = -1ul,
        .max_size = -1ul,
        .max_unreleased = -1ul,
    };
    if (regions == 0 || threads < 1 || threads > 2 || ucs_rcache_create(&params, "bench", NULL, &cache) != UCS_OK) {
        fprintf(stderr, "ucs_rcache_create failed\n");
        return 1;
    }
    base = mmap(NULL, regions * STRIDE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    order = malloc(regions * sizeof *order);
    if (base == MAP_FAILED || order == NULL) {
        perror("memory for the regions");
        return 1;
    }
    uint64_t random = 0x9e3779b97f4a7c15;
    for (size_t at = 0; at < regions; at++) {
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        size_t other = random % (at + 1);
        order[at] = order[other];
        order[other] = at;
    }
    for (size_t at = 0; at < regions; at++) {
        hit(at);
    }
    hits = regions > LEAST_HITS ? regions : LEAST_HITS;
    for (int round = 0; round <= rounds; round++) {
        double spent[2];
        pthread_t other;
        pthread_barrier_init(&together, NULL, threads);
        if (threads == 2) {
            pthread_create(&other, NULL, run, &spent[1]);
        }
        run(&spent[0]);
        if (threads == 2) {
            pthread_join(other, NULL);
        }
        pthread_barrier_destroy(&together);
        if (round > 0) { /* the first one warms up */
            printf("%.2f\n", threads == 2 ? (spent[0] + spent[1]) / 2 : spent[0]);
        }
    }
    return 0;
}
