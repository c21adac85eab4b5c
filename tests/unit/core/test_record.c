#include "agent/core/record.h"

#include <criterion/criterion.h>
#include <string.h>

#include "agent/base/err.h"
#include "agent/base/mem.h"

static struct uid uid_of(uint8_t first)
{
    struct uid uid;
    for (size_t i = 0; i < sizeof(uid.bytes); i++)
        uid.bytes[i] = (uint8_t)(first + i * 17);
    return uid;
}

Test(record, uid_reads_back_what_it_printed)
{
    struct uid uid = uid_of(0x0f), back;
    char text[33];
    uid_print(&uid, text);
    cr_assert_str_eq(text, "0f2031425364758697a8b9cadbecfd0e");
    cr_assert(uid_parse(text, 32, &back));
    cr_assert_arr_eq(back.bytes, uid.bytes, sizeof(uid.bytes));
    cr_assert_eq(uid_slot(&uid), 0x0f20);
}

Test(record, uid_is_read_in_its_printed_form_only)
{
    static const char *const bad[] = {"", "0f203142536475869", "0F2031425364758697a8b9cadbecfd0e",
                                      "0f2031425364758697a8b9cadbecfd0g",
                                      "0f2031425364758697a8b9cadbecfd0e0"};
    struct uid uid = uid_of(1), same = uid;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        cr_assert_not(uid_parse(bad[i], strlen(bad[i]), &uid), "%s", bad[i]);
    cr_assert_arr_eq(uid.bytes, same.bytes, sizeof(uid.bytes));
}

Test(record, fire_id_reads_back_at_both_ends_of_seq)
{
    static const uint64_t seqs[] = {1, 42, UINT64_MAX};
    struct uid uid = uid_of(0xf0), back;
    for (size_t i = 0; i < sizeof(seqs) / sizeof(seqs[0]); i++) {
        char text[56];
        uint64_t seq = 0;
        fire_id_print(&uid, seqs[i], text);
        cr_assert(fire_id_parse(text, &back, &seq), "%s", text);
        cr_assert_eq(seq, seqs[i]);
        cr_assert_arr_eq(back.bytes, uid.bytes, sizeof(uid.bytes));
    }
}

Test(record, fire_id_refuses_what_it_never_prints)
{
    static const char *const bad[] = {"",
                                      "0f2031425364758697a8b9cadbecfd0e",
                                      "0f2031425364758697a8b9cadbecfd0e.",
                                      "0f2031425364758697a8b9cadbecfd0e.0",
                                      "0f2031425364758697a8b9cadbecfd0e.01",
                                      "0f2031425364758697a8b9cadbecfd0e.-1",
                                      "0f2031425364758697a8b9cadbecfd0e.18446744073709551616",
                                      "0f2031425364758697a8b9cadbecfd0e.1 ",
                                      "0f2031425364758697a8b9cadbecfd0e:1"};
    struct uid uid;
    uint64_t seq = 7;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        cr_assert_not(fire_id_parse(bad[i], &uid, &seq), "%s", bad[i]);
    cr_assert_eq(seq, 7);
}

Test(record, every_name_reads_back)
{
    for (int i = 0; i < JOB_STATE_COUNT_; i++)
        cr_assert_eq(job_state_parse(job_state_name((enum job_state)i)), i);
    for (int i = 0; i < FIRE_OUTCOME_COUNT_; i++)
        cr_assert_eq(fire_outcome_parse(fire_outcome_name((enum fire_outcome)i)), i);
    cr_assert_null(fire_reason_name(FIRE_REASON_NONE));
    cr_assert_eq(job_state_parse("Active"), -1);
    cr_assert_eq(fire_outcome_parse(""), -1);
}

static struct fire_row full_row(void)
{
    return (struct fire_row){.seq = 3,
                             .log = mem_strdup("[1]"),
                             .log_bytes = 3,
                             .payload = mem_strdup("x"),
                             .payload_bytes = 1,
                             .parts = mem_strdup("[{}]"),
                             .parts_bytes = 4,
                             .trace = mem_strdup("00-"),
                             .trace_bytes = 3};
}

Test(record, a_copied_fire_owns_its_texts)
{
    struct fire_row row = full_row();
    struct fire_row copy = {0};
    cr_assert_eq(fire_row_bytes(&row), 11);
    cr_assert_eq(fire_row_copy(&row, &copy, NULL), 0);
    fire_row_fini(&row);
    cr_assert_null(row.log);
    cr_assert_str_eq(copy.log, "[1]");
    cr_assert_str_eq(copy.payload, "x");
    cr_assert_str_eq(copy.parts, "[{}]");
    cr_assert_str_eq(copy.trace, "00-");
    fire_row_fini(&copy);
}

Test(record, a_failed_copy_leaves_the_target_untouched)
{
    struct fire_row row = full_row();
    unsigned k = 0;
    for (;; k++) {
        struct fire_row copy = {.seq = 99};
        struct err e = {0};
        fault_arm(k);
        int r = fire_row_copy(&row, &copy, &e);
        if (!fault_fired()) {
            cr_assert_eq(r, 0);
            fire_row_fini(&copy);
            break;
        }
        cr_assert_eq(r, -ERR_NOMEM);
        cr_assert_eq(copy.seq, 99);
    }
    cr_assert_eq(k, 4);
    fire_row_fini(&row);
}
