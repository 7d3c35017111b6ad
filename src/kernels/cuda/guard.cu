// Whether a step is taken, and by which numbers: src/kernels/guard.rs, whose rule this is, decided
// where loss and gradients are, so that nobody waits for them.
#include "sums.cuh"

// As in adamw.cu.
struct Update {
    float rate, beta1, beta2, inverse_root, eps, scale;
    u32 applies;
};
// What the host knows of a step; all numbers are f64.
struct Rule {
    double mean, max_norm, rate, beta1, beta2, eps, scales;
};
// What lives on from step to step.
struct State {
    double loss_scale, good_steps, applied, skipped, lost_in_a_row;
};
// What came of a step.
struct Verdict {
    double loss, norm, skipped, lost_in_a_row;
};

const double LARGEST_SCALE = 16777216.0, GROWTH_STEPS = 2000.0, MOST_LOST = 3.0;

// One block of 256 threads. `parts`: sums of squares of the gradients; `losses`: where they are.
KERNEL decide(const double *parts, u64 num_parts, const double *const *losses, u32 num_losses,
              Rule rule, State *state, Update *update, Verdict *verdict) {
    double squares = sum_of(parts, num_parts);
    if (threadIdx.x != 0) return;
    State s = *state;
    double loss = 0.0;
    for (u32 i = 0; i < num_losses; i++) loss += *losses[i];
    loss *= rule.mean;
    double norm = sqrt(squares) * rule.mean / s.loss_scale;
    bool finite = isfinite(loss) && isfinite(norm);
    bool applies = finite && s.lost_in_a_row < MOST_LOST;
    if (finite) {
        if (applies) {
            s.applied += 1.0;
            s.lost_in_a_row = 0.0;
        }
        s.good_steps += 1.0;
        if (rule.scales != 0.0 && s.good_steps >= GROWTH_STEPS) {
            s.good_steps = 0.0;
            s.loss_scale = fmin(2.0 * s.loss_scale, LARGEST_SCALE);
        }
    } else {
        // A scale that was too large is no fault of the step's.
        bool shrinks = rule.scales != 0.0 && isfinite(loss) && s.loss_scale > 1.0;
        if (!shrinks) s.lost_in_a_row += 1.0;
        s.good_steps = 0.0;
        if (rule.scales != 0.0) s.loss_scale = fmax(0.5 * s.loss_scale, 1.0);
    }
    if (!applies) s.skipped += 1.0;
    double clip = rule.max_norm > 0.0 ? fmin(rule.max_norm / (norm + 1e-6), 1.0) : 1.0;
    update->rate = (float)(rule.rate / (1.0 - pow(rule.beta1, s.applied)));
    update->beta1 = (float)rule.beta1;
    update->beta2 = (float)rule.beta2;
    update->inverse_root = (float)(1.0 / sqrt(1.0 - pow(rule.beta2, s.applied)));
    update->eps = (float)rule.eps;
    update->scale = (float)(rule.mean / state->loss_scale * clip);
    update->applies = applies;
    verdict->loss = loss;
    verdict->norm = norm;
    verdict->skipped = applies ? 0.0 : 1.0;
    verdict->lost_in_a_row = s.lost_in_a_row;
    *state = s;
}
