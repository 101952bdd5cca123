/* Drawing by chance. See r2p2_load_draw.h. */
#include "r2p2_load_draw.h"

#include <math.h>

double r2p2_draw_exponential(uint64_t *state, double mean) { return -log(r2p2_draw_unit(state)) * mean; }

double r2p2_draw_from(uint64_t *state, const r2p2_distribution *distribution) {
    switch (distribution->shape) {
    case R2P2_SHAPE_UNIFORM:
        return distribution->a + r2p2_draw_unit(state) * (distribution->b - distribution->a);
    case R2P2_SHAPE_EXPONENTIAL:
        return r2p2_draw_exponential(state, distribution->a);
    case R2P2_SHAPE_BIMODAL:
        return r2p2_draw_unit(state) < distribution->share ? distribution->b : distribution->a;
    default:
        return distribution->a;
    }
}

int r2p2_distribution_valid(const r2p2_distribution *distribution) {
    if (distribution->shape > R2P2_SHAPE_BIMODAL || !(distribution->a >= 0) || !(distribution->b >= 0)) return 0;
    if (distribution->shape == R2P2_SHAPE_UNIFORM && distribution->b < distribution->a) return 0;
    return distribution->share >= 0 && distribution->share <= 1;
}

r2p2_zipf r2p2_zipf_new(uint64_t count, double skew) {
    r2p2_zipf zipf = {.skew = skew, .count = count, .second = 1 + pow(0.5, skew), .alpha = 1 / (1 - skew)};
    for (uint64_t i = 1; i <= count; i++) zipf.zeta += pow((double)i, -skew);
    if (count > 2) zipf.eta = (1 - pow(2.0 / (double)count, 1 - skew)) / (1 - zipf.second / zipf.zeta);
    return zipf;
}

uint64_t r2p2_zipf_draw(const r2p2_zipf *zipf, uint64_t *state) {
    double unit = r2p2_draw_unit(state), place = unit * zipf->zeta;
    if (place < 1 || zipf->count == 1) return 0;
    if (place < zipf->second || zipf->count == 2) return 1;
    uint64_t rank = (uint64_t)((double)zipf->count * pow(zipf->eta * unit - zipf->eta + 1, zipf->alpha));
    return rank < zipf->count ? rank : zipf->count - 1;
}
