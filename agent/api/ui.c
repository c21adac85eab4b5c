/* The pages for people, agent/api/ui, put into the program as they are. They hold nothing: what they show they ask of the API, with the
 * token of whoever looks, so they are given to everybody. */
#include <stdint.h>

#include "agent/api/api_private.h"

#define UI_FILE(name, file)                       \
    __asm__(".section .rodata\n"                  \
            ".global carillon_ui_" name "\n"      \
            ".global carillon_ui_" name "_end\n"  \
            "carillon_ui_" name ":\n"             \
            ".incbin \"agent/api/ui/" file "\"\n" \
            "carillon_ui_" name "_end:\n"         \
            ".byte 0\n"                           \
            ".previous\n")
UI_FILE("html", "index.html");
UI_FILE("css", "ui.css");
UI_FILE("js", "ui.js");
extern const char carillon_ui_html[], carillon_ui_html_end[], carillon_ui_css[], carillon_ui_css_end[],
    carillon_ui_js[], carillon_ui_js_end[];

#define UI_BYTES_MAX (1 << 20)

static const struct {
    const char *type, *begin, *end;
} files[API_ACTION_COUNT_] = {
    [API_UI] = {"text/html; charset=utf-8", carillon_ui_html, carillon_ui_html_end},
    [API_UI_CSS] = {"text/css; charset=utf-8", carillon_ui_css, carillon_ui_css_end},
    [API_UI_JS] = {"text/javascript; charset=utf-8", carillon_ui_js, carillon_ui_js_end},
};

/* No script, style or address but the agent's own, in no frame: whatever a job's texts hold, a browser runs nothing of it. */
static const struct httpd_header safe[] = {
    {"Content-Security-Policy",
     "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
     "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"},
    {"X-Content-Type-Options", "nosniff"},
    {"Referrer-Policy", "no-referrer"},
    {"Cross-Origin-Opener-Policy", "same-origin"},
};

void api_ui(struct exchange *x)
{
    enum api_action action = x->req.route->action;
    struct buf out = BUF_INIT(UI_BYTES_MAX);
    if (!node_config(x->api->node)->api.ui) {
        exchange_refuse_with(x, API_NOT_FOUND, "the pages are off: api.ui");
    } else if (action == API_UI_FOLDER) { /* the pages name their files relative to the folder */
        exchange_reply(x, 308, NULL, &(struct httpd_header){"Location", "/ui/"}, 1, NULL);
    } else {
        buf_add(&out, files[action].begin, (uintptr_t)files[action].end - (uintptr_t)files[action].begin);
        exchange_reply(x, 200, files[action].type, safe, sizeof(safe) / sizeof(safe[0]), &out);
    }
}
