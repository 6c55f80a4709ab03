"""What the verdicts of judges and people say (`tldr.judge` asks the judges).

* `eval.judge.pairs`: the pairs to judge of samples and posts in files;
* `eval.judge.measure`: results from judgements of any judge;
* `eval.judge.verdicts`: verdicts of people and judges as scores of a study's samples;
* `eval.judge.calibration`: a judge beside people, and its share corrected for its bias.
"""
