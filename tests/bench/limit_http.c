/* The raw limit of HTTP callbacks on this machine: bare libcurl multi, driven as cheaply as it can be, POSTs a callback's headers and
 * body to the callee.
 *
 *   limit_http --port P --requests N --in-flight F
 *
 * One thread. Prints one line of JSON, with the CPU that it took itself. */
#include <curl/curl.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/clock.h"
#include "agent/base/mem.h"
#include "tests/bench/bench.h"

static const char *const header_lines[] = {
    "User-Agent: carillon/0.1.0",
    "Content-Type: application/json",
    "Expect:",
    "ce-specversion: 1.0",
    "ce-id: 0199f0c2f9d07abf8d3c5a1f6e2b4c7d.1",
    "ce-source: /carillon/default/default",
    "ce-subject: bench-0000001",
    "ce-time: 2026-11-23T08:00:00.000Z",
    "Idempotency-Key: \"0199f0c2f9d07abf8d3c5a1f6e2b4c7d.1\"",
    "Carillon-Attempt: 1",
    "Carillon-Seq: 1",
    "Carillon-Epoch: 1795000000",
    "Carillon-Deadline: 2026-11-23T08:00:30.000Z",
    "ce-type: carillon.fire",
};

struct limit {
    CURLM *multi;
    struct curl_slist *headers;
    char url[64];
    uint64_t left;
    struct bench_samples us;
};

static size_t swallow(char *data, size_t size, size_t count, void *arg)
{
    (void)data;
    (void)arg;
    return size * count;
}

static void start(struct limit *l, CURL *easy)
{
    l->left--;
    BENCH_CHECK(curl_multi_add_handle(l->multi, easy) == CURLM_OK, "curl_multi_add_handle");
}

static void prepare(struct limit *l, CURL *easy)
{
    static const char body[] = "{\"n\":1234567}";
    curl_easy_setopt(easy, CURLOPT_URL, l->url);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_PROXY, "");
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, l->headers);
    curl_easy_setopt(easy, CURLOPT_POSTFIELDS, body);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, swallow);
}

static void finish_some(struct limit *l)
{
    CURLMsg *msg;
    int more;
    while ((msg = curl_multi_info_read(l->multi, &more))) {
        CURL *easy = msg->easy_handle;
        curl_off_t us = 0;
        long status = 0;
        if (msg->msg != CURLMSG_DONE)
            continue;
        curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
        BENCH_CHECK(msg->data.result == CURLE_OK && status == 200, "%s, status %ld",
                    curl_easy_strerror(msg->data.result), status);
        curl_easy_getinfo(easy, CURLINFO_TOTAL_TIME_T, &us);
        bench_samples_add(&l->us, us);
        curl_multi_remove_handle(l->multi, easy);
        if (l->left > 0)
            start(l, easy);
        else
            curl_easy_cleanup(easy);
    }
}

int main(int argc, char **argv)
{
    struct limit l = {.left = (uint64_t)bench_number(argc, argv, "requests", 1000)};
    uint64_t requests = l.left;
    int64_t in_flight = bench_number(argc, argv, "in-flight", 64);
    (void)snprintf(l.url, sizeof(l.url), "http://127.0.0.1:%u/fire",
                   (unsigned)bench_number(argc, argv, "port", 0));
    for (size_t i = 0; i < sizeof(header_lines) / sizeof(header_lines[0]); i++)
        l.headers = curl_slist_append(l.headers, header_lines[i]);
    BENCH_CHECK((l.multi = curl_multi_init()), "curl_multi_init");
    curl_multi_setopt(l.multi, CURLMOPT_MAXCONNECTS, (long)in_flight);
    uint64_t start_ns = clock_mono_ns();
    for (int64_t i = 0; i < in_flight && l.left > 0; i++) {
        CURL *easy = curl_easy_init();
        BENCH_CHECK(easy, "curl_easy_init");
        prepare(&l, easy);
        start(&l, easy);
    }
    while (l.us.count < requests) {
        int running;
        curl_multi_perform(l.multi, &running);
        finish_some(&l);
        if (l.us.count < requests)
            curl_multi_poll(l.multi, NULL, 0, 1000, NULL);
    }
    double seconds = (double)(clock_mono_ns() - start_ns) / 1e9;
    bench_print(json_pack("{s:f,s:f,s:f,s:o}", "seconds", seconds, "per_s", (double)requests / seconds,
                          "cpu_us_each", bench_cpu_us() / (double)requests, "ms",
                          bench_samples_json(&l.us, 1000)));
    curl_multi_cleanup(l.multi);
    curl_slist_free_all(l.headers);
    bench_samples_fini(&l.us);
    return 0;
}
