"""From where on a figure is a warning or a fault, and why there: every threshold of the doctor."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tldr.doctor.findings import Severity


@dataclass(frozen=True)
class Limit:
    """A figure's limits; None where there is no such severity."""

    warning: float | None
    fault: float | None

    def above(self, value: float) -> Severity | None:
        """How bad a figure is that should be small; what is not a number is a fault."""
        if math.isnan(value) or (self.fault is not None and value > self.fault):
            return "fault"
        return "warning" if self.warning is not None and value > self.warning else None

    def below(self, value: float) -> Severity | None:
        """How bad a figure is that should be large."""
        return Limit(
            None if self.warning is None else -self.warning, None if self.fault is None else -self.fault
        ).above(-value)


CONFIDENCE = 0.95
"""Of the intervals within which an accuracy is known."""
NEAR_CHANCE = 0.55
"""An accuracy known to be no more than this is chance; wider intervals
only say that more pairs are needed."""
RANDOM_INIT_ROWS = 500
"""Rankings that an untrained reward model orders: enough to know its accuracy within 0.05."""
PROMPTS_DIFFER = Limit(0.0, 0.01)
"""Share of the labelled posts whose text is another than the data's. A handful may be an edited post; TRL's
preference set differs in every one, by a line break."""
REPEATED_LABELS = Limit(0.1, 0.3)
"""Share of rankings that one worker gave of the same summaries before. By chance it is below 0.1 %; a file
read twice makes it 50 %."""
REFERENCES_CUT = Limit(0.05, 0.5)
"""Share of references that the response window cuts: a policy learns from them to stop in mid-sentence."""
GRADIENTS_CLIPPED = Limit(0.99, None)
"""Share of updates at the gradient limit. Pretrained models live with many, but if all are, the learning
rate is no longer what the settings say."""
GRADIENTS_ZERO = Limit(None, 0.5)
"""Share of updates without any gradient: the part does not learn."""
FEWEST_UPDATES = 10
"""Trends are read from no fewer rows."""
LOSS_GREW = Limit(None, 1.02)
"""Last tenth of the losses over the first tenth: 2 % are the noise of batches."""
REFERENCE_MEAN = Limit(None, 1e-2)
"""Of the shifted scores of the training references. fp32 gives 1e-8, bf16 rounds scores at 1e-2."""
REFERENCE_MEAN_ELSEWHERE = Limit(0.5, 1.0)
"""Mean score of the reporting references, in their standard deviations: other posts, so not exactly 0, but
a shift that was lost is usually several of them."""
LENGTH_CORRELATION = Limit(0.7, 0.9)
"""Spearman's, of score and tokens. Real labelers prefer longer summaries (P App. F), so some is honest."""
FIRST_RATIO = Limit(None, 1e-2)
"""Distance from 1 of the mean ratio of the first minibatch: 1e-5 in fp32; bf16 rounds a log-probability
at 4e-3 of it, which averages out."""
FIRST_KL = Limit(None, 1e-3)
"""Half the mean squared log-ratio of the first minibatch, a token: 1e-7 in fp32, below 5e-4 in bf16.
Dropout left on, or a temperature of 0.7 on one side, give more than 1e-2."""
SAMPLER_GAP = Limit(0.05, 0.2)
"""Mean distance, in nats a token, of the sampler's log-probabilities from the policy's: 1e-6 in fp32, about
0.01 in bf16. Weights of an iteration before are above it where a policy moves at all."""
KL_AGAIN = 0.05
"""The logged KL and that of the kept episodes, as a share of it (or in nats, below 1): they are the same
numbers, added up in another order."""
KL_SIGMAS = 4.0
"""Standard errors: one healthy estimate in 30,000 is further off."""
WEIGHT = 1.2
"""Mean of pi_SFT / pi over episodes drawn from pi, which is 1 (k3 = k1 + this - 1). Below 1 it says
nothing (samples from pi miss what only pi_SFT writes), above it says that the log-probabilities are not
those that the episodes were drawn with."""
CLIPPED = Limit(0.3, 0.5)
"""Share of tokens whose loss is clipped: PPO moves 2-10 % of them; at half of them it no longer follows
the gradient."""
VALUE_WORSE = -1.0
"""Explained variance below which, and below where it began, the value network has learnt nothing. It may
honestly be negative for long: it starts from a reward model, which predicts another thing."""
ENTROPY_LEFT = Limit(0.25, 0.1)
"""Entropy at the end over that at the start: a policy that keeps a tenth writes one summary for all."""
SCORE_FELL = 3.0
"""Standard errors by which the score ends lower than it began."""
EOS_RATE = Limit(0.9, 0.5)
"""Share of responses that end by themselves. All references do; a policy at temperature 1 misses a few."""
LENGTH_AT_CAP = Limit(0.9, 0.97)
"""Mean length over the response window: the paper's policies fill three quarters, N+'s 83 %."""
REPEATS = Limit(0.25, 0.5)
"""Share of a response's trigrams that it has said before: references 0-2 %, over-optimised policies 10 %."""
DISTINCT = Limit(0.5, 0.2)
"""Different texts over posts: summaries of different posts are the same text only if the post is not read."""
GOLD_DROP = 1.0
"""Standard deviations of SFT's gold scores: below, a loss of gold is the known price of optimising; from
there on the policy is worse than most of what SFT writes."""
