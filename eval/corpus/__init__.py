"""What the policies lose on texts like those of pretraining (Ouyang et al. 2022, 4.2)."""
