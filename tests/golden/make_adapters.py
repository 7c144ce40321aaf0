"""Writes a set of kind `adapters` with shapes by a seed: weights merged in f64 by the formats' own formulas.

    python3 make_adapters.py 3 adapters-f64
"""
import numpy as np, json, sys
seed=int(sys.argv[1]); out=sys.argv[2]
rng=np.random.default_rng(seed)
LO,LI=int(rng.integers(3,9))*8,int(rng.integers(3,9))*6
CO,CI=int(rng.integers(2,5))*8,int(rng.integers(2,5))*4
N=40
mods={"lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_v":("diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_v.weight","weight.linear"),
"lora_unet_up_blocks_1_resnets_0_conv2":("diffusion_model.output_blocks.2.0.out_layers.3.weight","weight.conv"),
"lora_unet_mid_block_attentions_0_transformer_blocks_0_norm2":("diffusion_model.middle_block.1.transformer_blocks.0.norm2.weight","weight.norm")}
names=list(mods)
T={}
r=lambda *s,scale=0.2: (rng.standard_normal(s)*scale).astype(np.float16).astype(np.float64)
T["weight.linear"]=r(LO,LI); T["weight.linear_bias"]=r(LO)
T["weight.conv"]=r(CO,CI,3,3); T["weight.conv_bias"]=r(CO)
T["weight.norm"]=r(N); T["weight.norm_bias"]=r(N)
S=[1.0,0.7,-0.5]
cases=[]
def add(name,mod,tens,fn,bias=None):
    stored=mods[names[mod]][1]
    for k,v in tens.items(): T[f"{name}.{names[mod]}.{k}"]=v
    W=T[stored]
    for s in S:
        full=fn(W,s)
        T[f"{name}.merged.{s:g}"]=full if s==1 else full.reshape(-1)[:256]
        if bias is not None: T[f"{name}.merged_bias.{s:g}"]=T[stored+"_bias"]+s*bias
    cases.append(dict(name=name,module=names[mod],weight=stored,tensors={k:list(np.shape(v)) for k,v in tens.items()}))
R=5; al=np.float64(3.0)
up,dn=r(LO,R),r(R,LI)
add("l_lora",0,{"lora_up.weight":up,"lora_down.weight":dn,"alpha":np.array(al)},lambda W,s:W+s*al/R*(up@dn))
def dora(W,D,mag,s,ax):
    C=W+D; n=np.sqrt((C**2).sum(axis=ax,keepdims=True)); return W+s*(C*mag/(n+1.2e-7)-W)
h16=lambda v: v.astype(np.float16).astype(np.float64)
m1=h16(np.abs(r(LO,1))+0.5); m2=h16(np.abs(r(1,LI))+0.5)
add("l_dora_out",0,{"lora_up.weight":up,"lora_down.weight":dn,"alpha":np.array(al),"dora_scale":m1},lambda W,s:dora(W,al/R*(up@dn),m1,s,1))
add("l_dora_in",0,{"lora_up.weight":up,"lora_down.weight":dn,"dora_scale":m2},lambda W,s:dora(W,up@dn,m2,s,0))
a1,b1,a2,b2=r(LO,3),r(3,LI),r(LO,3),r(3,LI)
add("l_loha",0,{"hada_w1_a":a1,"hada_w1_b":b1,"hada_w2_a":a2,"hada_w2_b":b2,"alpha":np.array(2.0)},lambda W,s:W+s*2/3*((a1@b1)*(a2@b2)))
k1=r(LO//8,LI//6); k2=r(8,6)
add("l_lokr",0,{"lokr_w1":k1,"lokr_w2":k2,"alpha":np.array(9.0)},lambda W,s:W+s*np.kron(k1,k2))
k1a,k1b,k2a,k2b=r(LO//8,2),r(2,LI//6),r(8,3),r(3,6)
add("l_lokr_both",0,{"lokr_w1_a":k1a,"lokr_w1_b":k1b,"lokr_w2_a":k2a,"lokr_w2_b":k2b,"alpha":np.array(9.0)},lambda W,s:W+s*9/3*np.kron(k1a@k1b,k2a@k2b))
add("l_lokr_w1f",0,{"lokr_w1_a":k1a,"lokr_w1_b":k1b,"lokr_w2":k2,"alpha":np.array(9.0)},lambda W,s:W+s*9/2*np.kron(k1a@k1b,k2))
g=[r(LI,4),r(4,LI),r(LO,4),r(4,LI)]
add("l_glora",0,{"a1.weight":g[0],"a2.weight":g[1],"b1.weight":g[2],"b2.weight":g[3],"alpha":np.array(2.0)},lambda W,s:W+s*2/4*(W@g[0]@g[1]+g[2]@g[3]))
h=[r(4,LI),r(LI,4),r(4,LI),r(LO,4)]
add("l_glora_old",0,{"a1.weight":h[0],"a2.weight":h[1],"b1.weight":h[2],"b2.weight":h[3]},lambda W,s:W+s*(W@h[1]@h[0]+h[3]@h[2]))
def rot(B,alpha):
    Q=B-np.swapaxes(B,-1,-2)
    if alpha>0:
        n=np.linalg.norm(Q)+1e-8
        if n>alpha: Q=Q*alpha/n
    I=np.eye(B.shape[-1]); return (I+Q)@np.linalg.inv(I-Q)
B=r(LO//8,8,8)
def oft(W,s,alpha=0.,res=None):
    Rm=rot(B,alpha); X=W.reshape(LO//8,8,-1); Y=np.einsum('knm,knz->kmz',Rm,X)
    Y=Y.reshape(W.shape)
    if res is not None: Y=Y*res
    return W+s*(Y-W)
add("l_oft",0,{"oft_blocks":B},lambda W,s:oft(W,s))
add("l_oft_c",0,{"oft_blocks":B,"alpha":np.array(0.5)},lambda W,s:oft(W,s,0.5))
rs=h16(1+r(LO,1))
add("l_oft_r",0,{"oft_blocks":B,"rescale":rs},lambda W,s:oft(W,s,0,rs))
df=r(LO,LI); db=r(LO)
add("l_diff",0,{"diff":df,"diff_b":db},lambda W,s:W+s*df,db)
add("l_lora_diff",0,{"lora_up.weight":up,"lora_down.weight":dn,"alpha":np.array(al),"diff":df},lambda W,s:W+s*al/R*(up@dn)+s*df)
cu,cd=r(CO,R,1,1),r(R,CI,3,3)
cD=np.einsum('or,rihw->oihw',cu[:,:,0,0],cd)
add("c_lora",1,{"lora_up.weight":cu,"lora_down.weight":cd,"alpha":np.array(al)},lambda W,s:W+s*al/R*cD)
add("c_flat",1,{"lora_up.weight":cu[:,:,0,0],"lora_down.weight":cd.reshape(R,-1)},lambda W,s:W+s*cD)
mu,md,mm=r(CO,R,1,1),r(4,CI,1,1),r(R,4,3,3)
mD=np.einsum('or,rkhw,ki->oihw',mu[:,:,0,0],mm,md[:,:,0,0])
add("c_mid",1,{"lora_up.weight":mu,"lora_down.weight":md,"lora_mid.weight":mm,"alpha":np.array(2.)},lambda W,s:W+s*2/4*mD)
t1,w1a,w1b,t2,w2a,w2b=r(4,4,3,3),r(4,CO),r(4,CI),r(4,4,3,3),r(4,CO),r(4,CI)
tk=lambda t,a,b: np.einsum('ijhw,io,jc->ochw',t,a,b)
add("c_loha_t",1,{"hada_t1":t1,"hada_w1_a":w1a,"hada_w1_b":w1b,"hada_t2":t2,"hada_w2_a":w2a,"hada_w2_b":w2b,"alpha":np.array(2.)},lambda W,s:W+s*2/4*tk(t1,w1a,w1b)*tk(t2,w2a,w2b))
q1=r(CO//8,CI//4); q2=r(8,4,3,3)
kc=lambda a,b: np.einsum('ab,cdhw->acbdhw',a,b).reshape(a.shape[0]*b.shape[0],a.shape[1]*b.shape[1],3,3)
add("c_lokr",1,{"lokr_w1":q1,"lokr_w2":q2},lambda W,s:W+s*kc(q1,q2))
t,x,y=r(3,3,3,3),r(3,8),r(3,4)
add("c_lokr_t",1,{"lokr_w1":q1,"lokr_t2":t,"lokr_w2_a":x,"lokr_w2_b":y,"alpha":np.array(2.)},lambda W,s:W+s*2/3*kc(q1,tk(t,x,y)))
f=r(8,3),r(3,36)
add("c_lokr_flat",1,{"lokr_w1":q1,"lokr_w2_a":f[0],"lokr_w2_b":f[1],"alpha":np.array(2.)},lambda W,s:W+s*2/3*kc(q1,(f[0]@f[1]).reshape(8,4,3,3)))
mo=h16(np.abs(r(CO,1,1,1))+.5); mi=h16(np.abs(r(1,CI,1,1))+.5)
add("c_dora_o",1,{"lora_up.weight":cu,"lora_down.weight":cd,"dora_scale":mo},lambda W,s:dora(W,cD,mo,s,(1,2,3)))
add("c_dora_i",1,{"lora_up.weight":cu,"lora_down.weight":cd,"dora_scale":mi},lambda W,s:dora(W,cD,mi,s,(0,2,3)))
cg=[r(CI,4),r(4,CI),r(CO,4),r(4,CI*9)]
add("c_glora",1,{"a1.weight":cg[0],"a2.weight":cg[1],"b1.weight":cg[2],"b2.weight":cg[3]},lambda W,s:W+s*(np.einsum('oihw,ir,rj->ojhw',W,cg[0],cg[1])+(cg[2]@cg[3]).reshape(W.shape)))
w,b=r(N),r(N)
add("n_norm",2,{"w_norm":w,"b_norm":b},lambda W,s:W+s*w,b)
js=dict(kind="adapters",strengths=S,model_keys={k:v[0] for k,v in mods.items()},cases=cases,other_names_of_the_same_module=[names[0],"unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_v","diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_v"])
json.dump(js,open(out+'.json','w'))
hdr={};blob=b''
for k,v in T.items():
    d=np.asarray(v).astype(np.float32).tobytes()
    hdr[k]=dict(dtype='F32',shape=list(np.shape(v)),data_offsets=[len(blob),len(blob)+len(d)]); blob+=d
j=json.dumps(hdr).encode(); j+=b' '*(-len(j)%8)
open(out+'.safetensors','wb').write(len(j).to_bytes(8,'little')+j+blob)
