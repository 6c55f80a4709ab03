"""Every threshold of the doctor for warnings and faults, with its reason."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tldr.doctor.findings import Severity


@dataclass(frozen=True)
class Limit:
    """The limits of a figure; None: it never has that severity."""

    warning: float | None
    fault: float | None

    def above(self, value: float) -> Severity | None:
        """The severity of a figure that should be small; NaN is a fault."""
        if math.isnan(value) or (self.fault is not None and value > self.fault):
            return "fault"
        return "warning" if self.warning is not None and value > self.warning else None

    def below(self, value: float) -> Severity | None:
        """The severity of a figure that should be large."""
        return Limit(
            None if self.warning is None else -self.warning, None if self.fault is None else -self.fault
        ).above(-value)


CONFIDENCE = 0.95
"""Confidence level of accuracy intervals."""
NEAR_CHANCE = 0.55
"""An accuracy whose interval lies below this is chance; wider intervals only show that more pairs are
needed."""
RANDOM_INIT_ROWS = 500
"""Rankings scored by an untrained reward model: enough to measure its accuracy within 0.05."""
PROMPTS_DIFFER = Limit(0.0, 0.01)
"""Fraction of labelled posts whose text differs from the data's. A few may be edited posts; in TRL's
preference set every post differs, by a line break."""
REPEATED_LABELS = Limit(0.1, 0.3)
"""Fraction of rankings that repeat the same worker's ranking of the same summaries. By chance it is below
0.1 %; reading a file twice gives 50 %."""
REFERENCES_CUT = Limit(0.05, 0.5)
"""Fraction of references that the response window cuts: from them a policy learns to stop mid-sentence."""
GRADIENTS_CLIPPED = Limit(0.99, None)
"""Fraction of updates with a clipped gradient. Many are normal for pretrained models, but if all are, the
effective learning rate is not the configured one."""
GRADIENTS_ZERO = Limit(None, 0.5)
"""Fraction of updates with a zero gradient: the module does not learn."""
FEWEST_UPDATES = 10
"""Fewest rows of a log for a trend."""
LOSS_GREW = Limit(None, 1.02)
"""Mean of the last tenth of the losses over that of the first tenth; 2 % is noise between batches."""
REFERENCE_MEAN = Limit(None, 1e-2)
"""Mean shifted score of the training references: 1e-8 in fp32; bf16 rounds scores at 1e-2."""
REFERENCE_MEAN_ELSEWHERE = Limit(0.5, 1.0)
"""Mean score of the reporting references, in their standard deviations: on other posts it is not exactly 0,
but a lost shift is usually several standard deviations."""
LENGTH_CORRELATION = Limit(0.7, 0.9)
"""Spearman correlation of score and tokens. Some is legitimate: labelers prefer long summaries (P App. F)."""
FIRST_RATIO = Limit(None, 1e-2)
"""Distance from 1 of the mean ratio in the first minibatch: 1e-5 in fp32; bf16 rounds log-probabilities
with a relative error of 4e-3, which averages out."""
FIRST_KL = Limit(None, 1e-3)
"""Half the mean squared log-ratio per token in the first minibatch: 1e-7 in fp32, below 5e-4 in bf16.
Active dropout, or a temperature of 0.7 on one side only, gives more than 1e-2."""
SAMPLER_GAP = Limit(0.05, 0.2)
"""Mean distance in nats per token between the log-probabilities of sampler and policy: 1e-6 in fp32, about
0.01 in bf16. Weights from the previous iteration exceed it, if the policy moves at all."""
KL_AGAIN = 0.05
"""Relative difference of the logged KL and that of the kept episodes (in nats if the KL is below 1): they
are the same numbers, summed in another order."""
KL_SIGMAS = 4.0
"""Standard errors; one healthy estimate in 30,000 deviates more."""
WEIGHT = 1.2
"""Mean of pi_SFT / pi over episodes sampled from pi; its expectation is 1 (k3 = k1 + this - 1). Below 1 it
shows nothing (samples from pi miss texts that only pi_SFT writes). Above 1 it shows that the episodes were
sampled with other log-probabilities."""
CLIPPED = Limit(0.3, 0.5)
"""Fraction of tokens with a clipped loss: usually 2-10 %; at one half, PPO no longer follows the gradient."""
VALUE_WORSE = -1.0
"""If the explained variance is below this and below its initial value, the value network has learnt nothing.
It may legitimately be negative for long, because it starts as a reward model, which predicts other values."""
ENTROPY_LEFT = Limit(0.25, 0.1)
"""Final over initial entropy: a policy that keeps a tenth writes the same summary for all posts."""
SCORE_FELL = 3.0
"""Standard errors by which the final score is below the initial one."""
EOS_RATE = Limit(0.9, 0.5)
"""Fraction of responses that end with EOS. All references do; at temperature 1 a policy misses a few."""
LENGTH_AT_CAP = Limit(0.9, 0.97)
"""Mean length over the response window: three quarters for the paper's policies, 83 % for N+'s."""
REPEATS = Limit(0.25, 0.5)
"""Fraction of a response's trigrams that are repeated: references 0-2 %, over-optimised policies 10 %."""
DISTINCT = Limit(0.5, 0.2)
"""Distinct texts over posts: different posts get the same summary only if the policy does not read them."""
GOLD_DROP = 1.0
"""Standard deviations of SFT's gold scores: a smaller drop of gold is the known cost of optimising; beyond
it the policy is worse than most SFT samples."""
FEWEST_ANSWERS = 25
"""Fewest answers of a worker for a judgement about the worker: among fewer, chance makes patterns."""
ONE_SIDED = Limit(0.85, 0.95)
"""Fraction of a worker's answers that prefer the same place. Summaries are shown in random order, so half is
expected; careful workers of OpenAI's batches reach 0.72. Of 25 answers at random, 22 are of one side once in
6,000 workers."""
PERIODIC = Limit(0.9, 0.97)
"""Fraction of answers equal to the one 2, 3 or 4 answers before: half is expected, and a worker with a share
of 0.72 for one side reaches 0.6. All of them means that the answers were clicked in turn."""
SAME_CONFIDENCE = Limit(0.9, 0.98)
"""Fraction of a worker's answers with the commonest confidence: at most 0.45 in OpenAI's batches (a scale of
nine), 0.6 of toy workers, who are nearly always sure (1 or 9)."""
CONFIDENCE_VARIES = 0.8
"""If the other workers give one confidence more often than this, the scale says nothing about anybody."""
LEAST_AGREEMENT = Limit(0.1, 0.3)
"""By how much the upper bound of a worker's agreement with the others is below their agreement with one
another (about 0.72). Among OpenAI's workers with as many answers all bounds are above it. At random a worker
agrees in half of them; with 100 answers the bound is then 0.12 below."""
