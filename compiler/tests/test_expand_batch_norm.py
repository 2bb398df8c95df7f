"""expand_batch_norm: statistics, then elementwise nodes."""

from edgec.compiler.passes.expand_batch_norm import expand_batch_norm
from edgec.tools.testing.pass_check import check_pass

PROGRAM = """
graph train {{
  input %x: f32[4,2,3,3]
  param %gamma: f32[2]
  param %beta: f32[2]
  {constants}
  {body}
  output "y" = %y
  output "mean" = %mean
  output "variance" = %variance
}}
"""


def test_the_mean_is_subtracted_before_the_product() -> None:
    one = "%y: f32[4,2,3,3], %mean: f32[2], %variance: f32[2] = batch_norm_train(%x, %gamma, %beta) {epsilon=0.5}"
    check_pass(
        expand_batch_norm,
        PROGRAM.format(constants="", body=one),
        PROGRAM.format(
            constants="constant %epsilon: f32[] = [0.5]\n constant %one: f32[] = [1.0]",
            body="""
              %mean: f32[2], %variance: f32[2] = moments(%x) {axes=(0,2,3)}
              %shifted: f32[2] = add(%variance, %epsilon)
              %deviation: f32[2] = sqrt(%shifted)
              %inverse: f32[2] = div(%one, %deviation)
              %scale: f32[2] = mul(%inverse, %gamma)
              %mean3: f32[2,1,1] = reshape(%mean) {shape=(2,1,1)}
              %centred: f32[4,2,3,3] = sub(%x, %mean3)
              %scale3: f32[2,1,1] = reshape(%scale) {shape=(2,1,1)}
              %scaled: f32[4,2,3,3] = mul(%centred, %scale3)
              %beta3: f32[2,1,1] = reshape(%beta) {shape=(2,1,1)}
              %y: f32[4,2,3,3] = add(%scaled, %beta3)
            """,
        ),
    )
