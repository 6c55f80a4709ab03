"""The doctor: find the stage of a study that is at fault, from the files that its runs left.

fault     the results are invalid: fix the cause and run the stage again (exit code 1)
warning   may be legitimate but often is not: check before you report
note      a property of the run, not a mistake: report it with the result

`tldr.doctor.limits` has every threshold with its reason. A check without its files reports nothing.

=========  ==================  =========================================================================
at fault   check               what a healthy run has
=========  ==================  =========================================================================
any        failed              it finished, and its parents have not been run again since
any        tokenizer           the tokenizer of every run that it reads
any        windows             the query and response windows of every run that it reads
any        unreadable          readable files
trained    pad_eos             a pad that is not EOS; model and tokenizer agree on both
trained    finite              no NaN or infinity in the log
trained    gradients           gradients that are not 0, and not always clipped
trained    learning_rate       the configured learning rate
trained    diverged            a final loss no higher than the initial one
data       leakage             no post in two sets that must be disjoint (labels included)
labels     repeated_labels     no answer of a worker twice
labels     one_sided_workers   workers who do not nearly always prefer the same place
labels     repeating_workers   answers without a short pattern, and confidences that vary
labels     deviating_workers   workers who agree with the others about as often as these do
labels     prompts             labelled posts with exactly the data's text
sft        reference_window    references that fit into the response window
sft        ngram_floor         a loss on valid1 below that of unigram and bigram models
reward     chance              an accuracy on valid1 above one half, interval included
reward     length_rule         an accuracy on valid1 not below that of a length rule
reward     random_init         a higher accuracy on valid1 than before training (only with --models)
reward     reference_mean      references that average 0 after the shift
reward     length_correlation  scores that are not a function of length
ppo        first_ratio         ratio 1 and KL 0 on the first minibatch of a rollout
ppo        sampler_gap         a sampler equal to the policy, up to bf16 precision
ppo        kl_sign             a KL that is not negative
ppo        kl_estimators       episodes that reproduce the logged KL (k1), and a consistent k3
ppo        clip_share          few clipped tokens
ppo        value_network       an explained variance that rises and ends above 0
ppo        entropy             an entropy that does not collapse
ppo        score_falls         a score that does not fall
ppo        rollout_ends        episodes that end before the response window
ppo        overoptimised       no rise of the reward over SFT while gold or judges fall
sft, ppo   eos_rate            samples that end with EOS
sft, ppo   length_at_cap       samples shorter than the window
sft, ppo   repeats             samples that do not repeat trigrams
sft, ppo   same_text           different samples for different posts
=========  ==================  =========================================================================
"""
