"""Learning to summarize from human feedback, reproduced: data, SFT, reward model, PPO, evaluation.

Importing this package is cheap: no torch, no transformers. The floors, each importing only
what lies below it:

    records, errors, config        what passes between the stages, and what an experiment is
    data, toy, mathematics         texts and tokens; the toy world; pure functions on tensors
    models                         policies, reward models, the packed forward pass, decoding
    train                          the one training loop: batches, schedule, checkpoint, resume
    stages                         pretrain, sft, labels, reward, ppo, best_of_n, sample, score
    study, cli                     the study file expanded into runs, and the command line
"""

__version__ = "0.1.0"
